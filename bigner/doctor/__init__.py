"""What a machine can do and what it lacks: a file for each subject, a finding for each line."""
