"""Memory, traffic and time of a run on machines that are not at hand; torch-free but simulate."""
