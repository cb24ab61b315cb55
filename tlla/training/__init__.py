"""Training without Dassl: a prompt (`prompt`), and Tip-Adapter's cache (`cache_model`)."""
