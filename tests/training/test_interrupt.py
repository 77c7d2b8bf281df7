import os
import signal
import threading

import pytest

from clinode.training.interrupt import stopping_gently


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_raises_a_flag(number):
    with stopping_gently() as flag:
        assert not flag.stop_requested
        os.kill(os.getpid(), number)
        assert flag.stop_requested


def test_a_second_signal_does_not_wait():
    with stopping_gently():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_earlier_handlers_return_afterwards():
    def mine(number, frame):
        pass

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with stopping_gently():
            assert signal.getsignal(signal.SIGTERM) is not mine
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_of_the_main_thread_the_flag_stays_down():
    seen = []

    def work():
        with stopping_gently() as flag:
            seen.append(flag.stop_requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
