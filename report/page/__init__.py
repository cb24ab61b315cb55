"""One self-contained HTML page for runs of TLLA or STSS: what the page shows is measured anew and checked."""
