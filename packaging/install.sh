#!/bin/sh
# Installs Keelson from its archive, or removes it: install.sh [--remove] [agent|master ...]. PREFIX is where (/usr/local).
# "agent join" and "master init" make the systemd units; containerd comes from the distribution.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
prefix=${DESTDIR:-}${PREFIX:-/usr/local}
action=install
if [ "${1:-}" = --remove ]; then action=remove; shift; fi
[ $# -gt 0 ] || set -- agent master

for program; do
    [ -d "$here/$program" ] || { echo "install.sh: there is no $program, only agent and master" >&2; exit 2; }
    if [ "$action" = remove ] && [ "$program" = agent ] && [ -z "${DESTDIR:-}" ] && [ -e /etc/keelson/node.yaml ]; then
        echo "install.sh: this machine is a node: run 'agent leave' first" >&2
        exit 1
    fi
    (cd "$here/$program" && find . -type f) | while read -r file; do
        target=$prefix/${file#./}
        if [ "$action" = remove ]; then
            rm -f "$target"
            # Folders that were made for it; the prefix' own stay.
            folder=$(dirname "$target")
            while case ${folder#"$prefix"/} in bin | share | share/man | "$folder") false ;; esac && rmdir "$folder" 2>/dev/null; do
                folder=$(dirname "$folder")
            done
            continue
        fi
        mkdir -p "$(dirname "$target")"
        # Never over a program that runs: the new one takes the name of the old one.
        cp "$here/$program/$file" "$target.new"
        case $file in ./bin/*) chmod 755 "$target.new" ;; *) chmod 644 "$target.new" ;; esac
        mv "$target.new" "$target"
    done
done
echo "$action: $* in $prefix"
