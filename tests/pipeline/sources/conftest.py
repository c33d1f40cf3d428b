"""A small data set of every format, written by the project."""

import gzip
import json

import pytest

HUGGING_FACE = {
    "events": {"user_id": ["u"], "item_id": ["a"], "timestamp": [1405296000]},
    "titles": {"item_id": ["a"], "title": ["Oak"]},
}
REVIEW = {"user_id": "u", "parent_asin": "a", "rating": 5.0, "timestamp": 1405296000123}
ITEM = {"parent_asin": "a", "title": "Oak Desk", "features": ["Solid"], "description": []}
# The files by their places, and what of them is given to `--check`.
FILES = {
    "amazon_reviews": {
        "amazon/Desks.jsonl.gz": json.dumps(REVIEW) + "\n",
        "amazon/meta_Desks.jsonl.gz": json.dumps(ITEM) + "\n",
    },
    "amazon_splits": {
        f"last_out/Desks.{part}.csv": f"user_id,parent_asin,rating,timestamp\nu,a,5.0,{time}\n"
        for part, time in (
            ("train", 1405296000123),
            ("valid", 1405296000124),
            ("test", 1405296000125),
        )
    }
    | {"meta_Desks.jsonl.gz": json.dumps(ITEM) + "\n"},
    "hllm": {
        "hllm/dataset/Pixel.csv": "item_id,user_id,timestamp\na,u,1661421600123\n",
        "hllm/information/Pixel.csv": "item_id,title,tag,description\na,Oak,Wood,Solid\n",
    },
    "huggingface": {},  # written by the library
    "ids": {"Beauty.txt": "1 5 6\n2 7 8 9\n"},
    "movielens": {
        "ml-1m/ratings.dat": "1::2::4::978300760\n",
        "ml-1m/movies.dat": "2::Quiet Hours (1999)::Drama\n",
    },
    "recbole": {
        "ml-100k/ml-100k.inter": (
            "user_id:token\titem_id:token\ttimestamp:float\nu\ta\t1405296000\n"
        ),
        "ml-100k/ml-100k.item": "item_id:token\ttitle:token_seq\na\tOak\n",
    },
    "sequences": {
        "toys/sequences.tsv.gz": "u\ta b\t1405296000 1405296001\n",
        "toys/items.tsv.gz": "a\tOak\tSolid\nb\tPine\tLight\n",
    },
    "steam": {
        "steam/steam_reviews.json.gz": (
            "{u'username': u'u', u'product_id': u'7', u'date': u'2018-01-02'}\n"
        ),
        "steam/steam_games.json.gz": "{u'id': u'7', u'app_name': u'Oak Quest'}\n",
    },
    "table": {
        "shop/events.csv": "customer_id,product_id,date\nu,a,2018-01-02\n",
        "shop/products.csv": "product_id,name\na,Oak\n",
    },
}
GIVEN = {
    "amazon_reviews": ("amazon",),
    "amazon_splits": ("last_out/Desks.train.csv", "meta_Desks.jsonl.gz"),
    "hllm": ("hllm",),
    "huggingface": ("events", "titles"),
    "ids": ("Beauty.txt",),
    "movielens": ("ml-1m",),
    "recbole": ("ml-100k",),
    "sequences": ("toys",),
    "steam": ("steam",),
    "table": ("shop",),
}


@pytest.fixture
def small_data():
    """What writes the data set of a format below a folder, and says what to give to `--check`."""

    def write(root, name):
        if name == "huggingface":
            library = pytest.importorskip("datasets")
            for place, rows in HUGGING_FACE.items():
                library.Dataset.from_dict(rows).save_to_disk(root / place)
        for place, text in FILES[name].items():
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            data = text.encode()
            (root / place).write_bytes(gzip.compress(data) if place.endswith(".gz") else data)
        return [root / place for place in GIVEN[name]]

    return write
