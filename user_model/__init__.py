"""Item vectors and histories in, user vectors out: the Hydra user model and its peers."""

from user_model.distributed import Workers
from user_model.hstu import HSTU, HSTUConfig
from user_model.hydra import Hydra, HydraConfig
from user_model.items import ItemTable, ItemTableConfig
from user_model.mamba2rec import Mamba2Rec, Mamba2RecConfig
from user_model.progress import EpochRecord, StepRecord, TrainingResult
from user_model.recommender import ParameterCounts, Recommender
from user_model.sasrec import SASRec, SASRecConfig
from user_model.sasrec_published import (
    PublishedSASRec,
    PublishedSASRecConfig,
    PublishedSASRecTraining,
)
from user_model.sequence import SequenceModel
from user_model.streaming import HydraState
from user_model.training import train
from user_model.training_config import TrainingConfig

__all__ = [
    "HSTU",
    "EpochRecord",
    "HSTUConfig",
    "Hydra",
    "HydraConfig",
    "HydraState",
    "ItemTable",
    "ItemTableConfig",
    "Mamba2Rec",
    "Mamba2RecConfig",
    "ParameterCounts",
    "PublishedSASRec",
    "PublishedSASRecConfig",
    "PublishedSASRecTraining",
    "Recommender",
    "SASRec",
    "SASRecConfig",
    "SequenceModel",
    "StepRecord",
    "TrainingConfig",
    "TrainingResult",
    "Workers",
    "train",
]
