"""What is voted on."""

from django.db import models


class Choice(models.Model):
    """One answer, and how many have given it."""

    text = models.CharField(max_length=100)
    votes = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ("pk",)


class Vote(models.Model):
    """That a visitor has voted: the database lets nobody do it twice, not even at once."""

    visitor = models.CharField(max_length=40, unique=True)
    choice = models.ForeignKey(Choice, models.CASCADE)
