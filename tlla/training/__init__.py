"""Training without Dassl: prompts (`prompt`) and Tip-Adapter's cache (`cache_model`)."""
