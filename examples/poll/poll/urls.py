"""The URLs. ``/events`` is the stream."""

from django.urls import path

from poll import views as poll
from ssehub.integrations.django import views

urlpatterns = [
    path("", poll.page),
    path("vote/<int:pk>", poll.vote),
    path("events", views.events),
]
