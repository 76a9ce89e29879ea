#!/bin/bash
# The name that configurations written for the docker-stacks images use.
exec jupyterhub-singleuser "$@"
