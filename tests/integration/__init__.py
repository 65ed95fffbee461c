"""Tests with real servers, browsers, proxies and Redis."""
