"""What the logs in SQL databases share: :mod:`ssehub.log.sqlite` and :mod:`ssehub.log.postgres`."""
