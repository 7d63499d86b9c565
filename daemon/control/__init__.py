"""Control: how an operator sees a running daemon and tells it what to do, over HTTP.

The API knows the daemon only as a ``Desk``, so it is tested alone, and it hands every order to the
loop as an event: nothing here touches the state.
"""
