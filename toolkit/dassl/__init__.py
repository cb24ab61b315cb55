"""The part of the Dassl API that CoOp-style projects use, for current versions of torch.

The API's design is Kaiyang Zhou's (https://github.com/KaiyangZhou/Dassl.pytorch, MIT licence); this is an
implementation of its own.
"""

__version__ = "0.7.0"
