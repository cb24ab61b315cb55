"""Looking after the datasets: getting, checking and describing their files."""
