"""Item vectors and histories in, user vectors out: the Hydra user model and its peers."""

from user_model.hydra import Hydra, HydraConfig
from user_model.items import ItemTable, ItemTableConfig
from user_model.sasrec import SASRec, SASRecConfig
from user_model.sequence import SequenceModel
from user_model.training_config import TrainingConfig

__all__ = [
    "Hydra",
    "HydraConfig",
    "ItemTable",
    "ItemTableConfig",
    "SASRec",
    "SASRecConfig",
    "SequenceModel",
    "TrainingConfig",
]
