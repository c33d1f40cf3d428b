"""How much one request may ask for, and how much of a user is kept. What is over is refused."""

BODY_BYTES = 1 << 20
ID_CHARS = 256  # of an item, a user, a domain, an event
TEXT_CHARS = 8_192  # of a new item's text
QUERY_CHARS = 256
HISTORY_EVENTS = 1_000  # of one history in a request
BATCH_EVENTS = 1_000  # of one POST /events
MOST_ITEMS = 200  # k of /recommend
MOST_FOUND = 50  # k of /search
LATEST_TIME = 253_402_300_799  # unix seconds: the end of the year 9999
# What is kept of a user beside the state, so that another bundle can compute a state of its own.
KEPT_EVENTS = 500
KEPT_EVENT_IDS = 256
# Items added by text live in every replica's memory until a bundle brings them.
ADDED_ITEMS = 10_000
