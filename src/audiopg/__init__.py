"""AudioPG: an audio encoder pre-trained without a single recording.

Importing this package registers its classes, so that `AutoModel.from_pretrained` and its relatives load a checkpoint
without `trust_remote_code`.
"""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForPreTraining,
)

from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForAudioClassification, AudioPGForPreTraining, AudioPGModel

__version__ = "0.1.0"

__all__ = [
    "AudioPGConfig",
    "AudioPGFeatureExtractor",
    "AudioPGForAudioClassification",
    "AudioPGForPreTraining",
    "AudioPGModel",
]

AutoConfig.register(AudioPGConfig.model_type, AudioPGConfig)
AutoFeatureExtractor.register(AudioPGConfig, AudioPGFeatureExtractor)
AutoModel.register(AudioPGConfig, AudioPGModel)
AutoModelForPreTraining.register(AudioPGConfig, AudioPGForPreTraining)
AutoModelForAudioClassification.register(AudioPGConfig, AudioPGForAudioClassification)
