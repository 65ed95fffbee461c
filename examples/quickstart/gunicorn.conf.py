def post_worker_init(worker):
    import threading
    import time

    from app import hub

    def watch():
        while worker.alive:
            time.sleep(0.1)
        hub.close()

    threading.Thread(target=watch, name="close-hub", daemon=True).start()
