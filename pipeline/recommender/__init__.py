"""Use what was trained: a bundle, users that are followed event by event, recommendations.

from pipeline import Recommender
rec = Recommender.load("bundles/shop")
rec.recommend(["B00004TH2W", "B0000205XI"], k=10, domain="toys")
"""

from pipeline.recommender.catalogue import Catalogue
from pipeline.recommender.recommender import Recommendation, Recommender
from pipeline.recommender.users import UserState

__all__ = ["Catalogue", "Recommendation", "Recommender", "UserState"]
