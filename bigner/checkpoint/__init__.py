"""Checkpoints: flat shards on disk, readable under any strategy and world size.

A checkpoint is a folder of safetensors files, one a rank, and ``manifest.json``, which says which
range of which parameter lies where. It is written under a temporary name and brought to the disk,
the manifest last, then renamed: a folder without a manifest is no checkpoint. There is no pickle
in it.
"""
