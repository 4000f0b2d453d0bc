"""AudioPG: an audio encoder pre-trained without a single recording.

Importing this package registers its classes, so that `AutoModel.from_pretrained` and its relatives load a checkpoint
without `trust_remote_code`.
"""

__version__ = "0.1.0"
