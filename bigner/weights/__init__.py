"""What a model begins with.

Every rank reads and draws only what it owns, parameter by parameter, straight into its shards.
"""

from bigner.weights.initial import InitialWeights

__all__ = ["InitialWeights"]
