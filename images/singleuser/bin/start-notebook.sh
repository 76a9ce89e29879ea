#!/bin/bash
# The server: below a hub jupyterhub-singleuser, else a JupyterLab of its own.
if [[ -n ${JUPYTERHUB_API_TOKEN:-} ]]; then
  exec jupyterhub-singleuser "$@"
fi
exec jupyter lab "$@"
