"""The loss around a prompt: planes through it and measures of its flatness."""
