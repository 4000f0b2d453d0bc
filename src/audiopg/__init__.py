"""AudioPG: an audio encoder pre-trained without a single recording.

Importing this package registers its classes, so that `AutoModel.from_pretrained` and its relatives load a checkpoint
without `trust_remote_code`, and `pipeline("audio-feature-extraction")` embeds recordings. Whatever is saved holds the
code that loading it elsewhere needs.
"""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForPreTraining,
)
from transformers.pipelines import PIPELINE_REGISTRY

from audiopg import moved
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.configuration_doppelganger import DoppelgangerConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.feature_extraction_doppelganger import DoppelgangerFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForAudioClassification, AudioPGForPreTraining, AudioPGModel
from audiopg.modeling.modeling_doppelganger import DoppelgangerModel
from audiopg.modeling.pipeline_audiopg import AudioPGAudioClassificationPipeline, AudioPGFeatureExtractionPipeline

moved.install()

__version__ = "0.1.0"

__all__ = [
    "AudioPGAudioClassificationPipeline",
    "AudioPGConfig",
    "AudioPGFeatureExtractionPipeline",
    "AudioPGFeatureExtractor",
    "AudioPGForAudioClassification",
    "AudioPGForPreTraining",
    "AudioPGModel",
    "DoppelgangerConfig",
    "DoppelgangerFeatureExtractor",
    "DoppelgangerModel",
]

AutoConfig.register(AudioPGConfig.model_type, AudioPGConfig)
AutoFeatureExtractor.register(AudioPGConfig, AudioPGFeatureExtractor)
AutoModel.register(AudioPGConfig, AudioPGModel)
AutoModelForPreTraining.register(AudioPGConfig, AudioPGForPreTraining)
AutoModelForAudioClassification.register(AudioPGConfig, AudioPGForAudioClassification)
AutoConfig.register(DoppelgangerConfig.model_type, DoppelgangerConfig)
AutoFeatureExtractor.register(DoppelgangerConfig, DoppelgangerFeatureExtractor)
AutoModel.register(DoppelgangerConfig, DoppelgangerModel)
PIPELINE_REGISTRY.register_pipeline(
    "audio-feature-extraction", AudioPGFeatureExtractionPipeline, pt_model=AutoModel, type="audio"
)
