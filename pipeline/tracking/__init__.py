"""What a run measures, told to whoever follows it: a JSONL file always, other trackers by choice.

records           a record, the run it belongs to, and what a tracker must do with them
config            which trackers, and how much time they get
jsonl             RUN/tracking.jsonl
isolated          a tracker in a process of its own, behind a bounded queue
process           that process
registry          the external trackers: TensorBoard, MLflow, Weights & Biases
tracking          all of them, as the run sees them
"""
