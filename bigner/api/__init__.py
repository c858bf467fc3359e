"""What Python code asks for by name: ``bigner.train``, ``bigner.evaluate``, ``bigner.launch``."""
