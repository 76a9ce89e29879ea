#!/bin/bash
# Entry point: prepares the user, runs the hooks, then becomes the server.
# The variables are those of the Jupyter docker-stacks: NB_USER NB_UID NB_GID NB_UMASK CHOWN_HOME
# CHOWN_HOME_OPTS CHOWN_EXTRA CHOWN_EXTRA_OPTS. All but NB_UMASK need a container started as root.
set -e

log() { echo "start.sh: $*" >&2; }

# run_hooks DIR: *.sh are sourced (they may change the environment), other executables are run.
run_hooks() {
  local hook
  for hook in "$1"/*; do
    if [[ $hook == *.sh && -f $hook ]]; then
      # shellcheck source=/dev/null
      source "$hook" || log "hook $hook ended with $?"
    elif [[ -f $hook && -x $hook ]]; then
      "$hook" || log "hook $hook ended with $?"
    fi
  done
}

# prepare_user: as root, give the account the name, ids and home that were asked for.
prepare_user() {
  local old
  old=$(getent passwd 1000 | cut -d: -f1)
  old=${old:-jovyan}
  if [[ -n ${NB_GID:-} && $(id -g "$old") != "$NB_GID" ]]; then
    getent group "$NB_GID" >/dev/null || groupadd --gid "$NB_GID" "${NB_GROUP:-$NB_USER}"
    usermod --gid "$NB_GID" "$old"
  fi
  [[ $(id -u "$old") == "$NB_UID" ]] || usermod --non-unique --uid "$NB_UID" "$old"
  if [[ $old != "$NB_USER" ]]; then
    usermod --login "$NB_USER" --home "/home/$NB_USER" "$old"
    # An empty home of the new name is filled from the old one; one with files is somebody's.
    mkdir -p "/home/$NB_USER"
    [[ -n $(ls -A "/home/$NB_USER") ]] || cp -a "/home/$old/." "/home/$NB_USER/"
    chown "$NB_UID:$NB_GID" "/home/$NB_USER"
    [[ $PWD != "/home/$old"* ]] || cd "/home/$NB_USER"
  fi
  local path
  # shellcheck disable=SC2086
  case ${CHOWN_HOME:-} in 1 | yes) chown ${CHOWN_HOME_OPTS:-} "$NB_UID:$NB_GID" "/home/$NB_USER" ;; esac
  for path in ${CHOWN_EXTRA//,/ }; do
    # shellcheck disable=SC2086
    chown ${CHOWN_EXTRA_OPTS:-} "$NB_UID:$NB_GID" "$path"
  done
  case ${GRANT_SUDO:-} in 1 | yes) log "GRANT_SUDO has no effect: this image has no sudo" ;; esac
}

[[ $# -gt 0 ]] || set -- start-notebook.sh
[[ -z ${NB_UMASK:-} ]] || umask "$NB_UMASK"
run_hooks /usr/local/bin/start-notebook.d
if [[ $(id -u) == 0 ]]; then
  prepare_user
  export HOME=/home/$NB_USER USER=$NB_USER LOGNAME=$NB_USER
  run_hooks /usr/local/bin/before-notebook.d
  exec setpriv --reuid "$NB_UID" --regid "$NB_GID" --init-groups -- "$@"
fi
# A uid without an account (docker run --user 4711): some programs ask for a name.
[[ -n ${USER:-} ]] || export USER=${NB_USER:-jovyan}
[[ -w ${HOME:-/} ]] || log "the home $HOME is not writable for uid $(id -u): files can't be saved"
run_hooks /usr/local/bin/before-notebook.d
exec "$@"
