# ssehub as a service: docs/docker.rst says how to use it.
FROM python:3.13-slim

WORKDIR /src
COPY setup.py setup.cfg pyproject.toml README.rst LICENSE ./
COPY ssehub ssehub
RUN pip install --no-cache-dir '.[redis,prometheus]'

WORKDIR /
# A number, so that Kubernetes can see that it is not root (runAsNonRoot). The user needs no files and no home.
USER 10001:10001
EXPOSE 8000
# 200 also while Redis is down: a restart would only end the streams.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["python", "-c", \
    "import http.client, sys; hub = http.client.HTTPConnection('127.0.0.1', 8000, timeout=2); hub.request('GET', '/health'); sys.exit(hub.getresponse().status != 200)"]
# A list, so that the hub is the process that gets SIGTERM, and not a shell.
CMD ["ssehub", "serve", "--host", "0.0.0.0"]
