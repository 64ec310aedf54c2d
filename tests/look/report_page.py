"""What stands in a report's page, and names in it that mean no good."""

import json
import re
from pathlib import Path
from typing import Any

HOSTILE_CLASS = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
HOSTILE_FILE = "a'\"><img src=x onerror=alert(3)>&amp;.png"


def data_of(path: Path) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])["objects"]
