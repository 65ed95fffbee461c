import pytest
from app import create_app

from ssehub import Client


@pytest.fixture
def app(ssehub_hub):
    return create_app(ssehub_hub)


@pytest.fixture
def post(app):
    return lambda text: app.test_client().post("/news", data={"text": text})


def test_news_goes_to_everyone_in_its_zone(post, ssehub_hub):
    answer = post("hello")
    (message,) = ssehub_hub.events("news")
    assert (message.data, message.id) == ("hello", answer.json["id"])
    assert ssehub_hub.events("sports") == []


def test_a_stream_brings_it(app, post, ssehub_stream):
    stream = ssehub_stream(app, "/events?user=ada")
    post("one")
    post("two")
    assert [message.data for message in stream.read(2)] == ["one", "two"]
    assert stream.opened["client_id"] == "ada"


def test_the_editor_is_told_if_the_log_has_not_accepted_it(post, ssehub_hub, ssehub_log):
    ssehub_log.fail()
    assert post("lost").status_code == 503
    assert post("hello").status_code == 200
    assert [message.data for message in ssehub_hub.events("news")] == ["hello"]


def test_who_was_away_for_too_long_gets_the_latest(app, post, ssehub_stream, ssehub_log):
    stream = ssehub_stream(app, "/events")
    stream.close()
    post("hello")
    ssehub_log.trim()
    gap, latest = ssehub_stream(app, "/events", last_event_id=stream.last_event_id).read(2)
    assert (gap.event, gap.json()["reason"]) == ("ssehub.gap", "trimmed")
    assert latest.data == "the latest is: hello"


def test_a_script_follows_over_http(app, post, ssehub_server):
    client = Client(ssehub_server(app).url + "/events")
    client.on_connection(lambda: post("hello"))
    for message in client:
        assert message.data == "hello"
        break
