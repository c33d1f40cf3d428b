"""Where outputs are kept: a folder, or an object store (s3://) with a mirror on each machine."""
