"""The LongLLaMA architecture: LLaMA whose memory layers attend, besides their window, to what was read before.

The files of this folder are copied beside a checkpoint by `save_pretrained`, so they import torch, transformers and
each other only, and raise plain ValueError and TypeError.
"""
