"""The choices and the votes."""

from django.db import models


class Choice(models.Model):
    """One choice, with the number of its votes."""

    text = models.CharField(max_length=100)
    votes = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ("pk",)


class Vote(models.Model):
    """The vote of a visitor. A constraint of the database prevents a second vote, even at the same moment."""

    visitor = models.CharField(max_length=40, unique=True)
    choice = models.ForeignKey(Choice, models.CASCADE)
