"""An executor whose tasks run when the test says so: every interleaving, the same one each time."""

from concurrent.futures import Executor, Future


class ByHand(Executor):
    """Tasks in the order they were submitted."""

    def __init__(self, *_):
        self.tasks = []
        self.closed = False

    def submit(self, function, /, *args, **kwargs):
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = Future()
        self.tasks.append((future, function, args, kwargs))
        return future

    def run(self, count=None):
        """The next tasks, or all, those that come up meanwhile included."""
        while self.tasks and count != 0:
            future, function, args, kwargs = self.tasks.pop(0)
            count = None if count is None else count - 1
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*args, **kwargs))
                except BaseException as error:  # noqa: BLE001  as the real ones do
                    future.set_exception(error)

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.closed = True
        if cancel_futures:
            for future, *_ in self.tasks:
                future.cancel()
            self.tasks.clear()
        self.run()


class Hands:
    """Makes the store's executors: the readers first, then the writer."""

    def __init__(self):
        self.made = []

    def __call__(self, count, name):
        self.made.append(ByHand())
        return self.made[-1]

    @property
    def readers(self):
        return self.made[-2]

    @property
    def writer(self):
        return self.made[-1]

    def run(self):
        """Everything that is waiting; whether there was anything."""
        busy = any(hand.tasks for hand in self.made)
        for hand in self.made:
            hand.run()
        return busy
