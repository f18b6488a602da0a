"""`btkit serve`: a page to drop a scan on, and a JSON API that does the same for programs.

limits.py    what an upload and a queue may cost
engine.py    the model: one picture to probabilities, flags and maps
desk.py      requests in a row before it, none waiting for ever
guard.py     who may ask: Host, Origin and token; and what every answer is sent with
bodies.py    uploads, bounded in size and time
answers.py   the forms of the API's answers
app.py       the routes
server.py    the socket
page/        the page: plain HTML, style and script, nothing fetched from elsewhere
"""
