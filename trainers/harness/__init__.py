"""What all trainers stand in: data, the evaluation loop, records, several processes."""
