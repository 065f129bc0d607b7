"""What checks types and shapes when tests run: beartype, with int accepted for float as type checkers do.

beartype picks the list items it looks at by `random.getrandbits`, bound when it is imported. It gets a generator of its own
here: the global one belongs to the runs under test, which must be reproducible to the bit.
"""

import random
from unittest import mock

with mock.patch("random.getrandbits", random.Random(0).getrandbits):
    from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
