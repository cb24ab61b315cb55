"""What runs leave behind: results.json, read and checked, and who has trained what they tested."""
