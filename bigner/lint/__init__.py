"""What `bigner lint` looks for: functions from a corpus to findings, one subject a file."""
