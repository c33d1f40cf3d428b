"""One file a format: raw data in, two Arrow tables a domain out."""
