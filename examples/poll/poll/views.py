"""The views: the page, and a vote."""

from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.http import JsonResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST

from poll.models import Choice, Vote
from ssehub.integrations.django import hub


def results():
    """Return the votes by choice, and their total. The total only grows, so the greater one is newer."""
    votes = dict(Choice.objects.values_list("pk", "votes"))
    return {"votes": votes, "total": sum(votes.values())}


@require_GET
@ensure_csrf_cookie
def page(request):
    """Show the poll."""
    if not request.session.session_key:
        request.session.create()
    cursor = hub().cursor()  # before the votes are read, so that the stream has all later ones
    mine = Vote.objects.filter(visitor=request.session.session_key).first()
    voted = mine and mine.choice_id
    context = {"choices": Choice.objects.all(), "results": results(), "cursor": cursor, "voted": voted}
    return render(request, "poll.html", context)


@require_POST
def vote(request, pk):
    """Count a vote, and send the results in the same transaction."""
    choice = get_object_or_404(Choice, pk=pk)
    visitor = request.session.session_key
    if not visitor:
        return JsonResponse({"error": "voting needs the cookie that comes with the page"}, status=403)
    try:
        with transaction.atomic():
            Vote.objects.create(visitor=visitor, choice=choice)
            Choice.objects.filter(pk=pk).update(votes=F("votes") + 1)  # in the database, so that no vote is lost
            # Part of the transaction: it is sent if and only if the vote counts.
            hub().broadcast(results(), event="results", zone="default", within=connection)
    except IntegrityError:
        return JsonResponse({"error": "you have voted already"}, status=409)
    return JsonResponse({"voted": choice.pk})
