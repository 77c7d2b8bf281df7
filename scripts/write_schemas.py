"""Write data_schemas/ from clinode/cohort/schema.py."""

import json
from pathlib import Path

from clinode.cohort.schema import json_schemas

FOLDER = Path(__file__).resolve().parent.parent / "data_schemas"

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, schema in json_schemas().items():
        text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        (FOLDER / name).write_text(text, encoding="utf-8")
