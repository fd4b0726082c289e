"""The table of access: every route, who sends the request, and the status of the response."""

from typing import Any, NamedTuple

import httpx

from deploy.client import Client
from tests.upload_requests import TINY_WAV, WAV_TYPE

User = dict[str, Any]

# Who sends the request:
# owner: the user whose id and record stand in the path.
# other: another user, who has a record and no access to the owner's.
# wrong: the owner with a token that was never issued.
# rotated: the owner with a token that was renewed since.
# deleted: the owner after deleting the account; the record is deleted, too.
# nobody: without credentials. malformed: with an Authorization header that cannot be read.
# A link needs no credentials. A waveform takes credentials or the user of a link; both are refused (400).
HEAD, *ROWS = """
                                             owner  other  wrong  rotated  deleted  nobody  malformed
POST   /users                                  201    201    201      201      201     201        201
GET    /users/me                               200    200    401      401      401     401        401
HEAD   /users/me                               200    200    401      401      401     401        401
DELETE /users/me                               204    204    401      401      401     401        401
POST   /users/me/token                         200    200    401      401      401     401        401
POST   /records                                201    201    401      401      401     401        401
GET    /records                                200    200    401      401      401     401        401
HEAD   /records                                200    200    401      401      401     401        401
GET    /records/{record}                       200    404    401      401      401     401        401
HEAD   /records/{record}                       200    404    401      401      401     401        401
PATCH  /records/{record}                       200    404    401      401      401     401        401
DELETE /records/{record}                       204    404    401      401      401     401        401
GET    /records/{record}/waveform              200    404    401      401      401     401        401
HEAD   /records/{record}/waveform              200    404    401      401      401     401        401
GET    /records/{record}/original              200    404    401      401      401     401        401
HEAD   /records/{record}/original              200    404    401      401      401     401        401
DELETE /records/{record}/original              204    404    401      401      401     401        401
GET    /records/{record}/waveform?user={user}  400    400    400      400      400     200        400
HEAD   /records/{record}/waveform?user={user}  400    400    400      400      400     200        400
GET    /record?id={record}&user={user}         200    200    200      200      404     200        200
HEAD   /record?id={record}&user={user}         200    200    200      200      404     200        200
GET    /listen?id={record}&user={user}         200    200    200      200      404     200        200
HEAD   /listen?id={record}&user={user}         200    200    200      200      404     200        200
GET    /listen.png?id={record}&user={user}     200    200    200      200      404     200        200
HEAD   /listen.png?id={record}&user={user}     200    200    200      200      404     200        200
GET    /healthz                                200    200    200      200      200     200        200
GET    /readyz/users                           200    200    200      200      200     200        200
GET    /readyz/records                         200    200    200      200      200     200        200
""".strip().splitlines()
COLUMNS = HEAD.split()
STATUSES = {
    f"{method} {path}": dict(zip(COLUMNS, map(int, statuses), strict=True))
    for method, path, *statuses in map(str.split, ROWS)
}


class TwoUsers(NamedTuple):
    """An owner with a record that has its original, and another user."""

    owner: User
    record: dict[str, Any]
    other: User


def send_to(client: Client, route: str, users: TwoUsers, headers: dict[str, Any]) -> httpx.Response:
    """Sends a valid request to a route of the table, with these headers of who sends it."""
    method, path = route.split()
    path = path.format(record=users.record["id"], user=users.owner["id"])
    match route.split():
        case "POST", "/users":
            return client.http.post(path, json={"name": "Ann"}, headers=headers)
        case "POST", "/records":
            return client.http.post(path, content=TINY_WAV, headers={**WAV_TYPE, **headers})
        case "PATCH", _:
            return client.http.patch(path, json={"title": "Renamed"}, headers=headers)
    return client.http.request(method, path, headers=headers)
