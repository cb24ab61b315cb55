"""Results of runs: results.json, read and checked, and which run trained the prompt that was tested."""
