"""Says how many operations a server has done, and fails where those are few: who is refused everything finds nothing."""

import re
import sys
import urllib.request

LEAST = 30

server, session = sys.argv[1:]
request = urllib.request.Request(f"{server}/metrics", headers={"Authorization": f"Bearer {session}"})
metrics = urllib.request.urlopen(request, timeout=10).read().decode()
counted = re.findall(r'^knot_http_requests_total\{method="([^"]+)",route="(/api/[^"]*)",status="2\d\d"\}', metrics, re.M)
done = set(counted)
print(f"{len(done)} operations of the API were done, the others refused")
if len(done) < LEAST:
    sys.exit(f"that is less than {LEAST}: is what is sent no longer let in?")
