"""The comparison for POST /users: uvicorn and asyncpg insert the same row, and check nothing.

`python -m tests.bench.bare_users PORT` finds PostgreSQL by the variables of libpq.
"""

import hashlib
import sys
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import uvicorn
import uvloop

from deploy.local.ports import LOOPBACK

INSERT = "INSERT INTO users (id, name, token_digest) VALUES ($1, $2, $3) RETURNING created_at"


async def serve(port: int) -> None:
    """Serves an ASGI application that creates a user for every request."""
    async with asyncpg.create_pool(min_size=8, max_size=8) as pool:

        async def create_user(_: Any, receive: Any, send: Any) -> None:
            body, has_more = b"", True
            while has_more:
                message = await receive()
                body += message["body"]
                has_more = message["more_body"]
            name, user_id, token = msgspec.json.decode(body)["name"], uuid4(), str(uuid4())
            created_at = await pool.fetchval(INSERT, user_id, name, hashlib.sha256(token.encode()).digest())
            user = {"id": user_id, "name": name, "token": token, "created_at": created_at}
            content = msgspec.json.encode(user)
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
            await send({"type": "http.response.start", "status": 201, "headers": headers})
            await send({"type": "http.response.body", "body": content})

        config = uvicorn.Config(
            *(create_user, LOOPBACK, port),
            http="httptools",
            lifespan="off",
            log_config=None,
            access_log=False,
        )
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
