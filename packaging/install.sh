#!/bin/sh
# Installs Keelson from its archive, or removes it: install.sh [--remove] [agent|master ...]. PREFIX is where (/usr/local).
# "agent join" and "master init" make the systemd units; containerd comes from the distribution.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
prefix=${DESTDIR:-}${PREFIX:-/usr/local}
action=install
if [ "${1:-}" = --remove ]; then action=remove; shift; fi
[ $# -gt 0 ] || set -- agent master
units=/etc/systemd/system

# The folder that the unit of this very program names; fails where there is no such unit.
folder_of() {
    command=$(sed -n 's/^ExecStart=//p' "$units/$1.service" 2>/dev/null) || return 1
    [ "${command%% *}" = "$prefix/bin/$1" ] || return 1
    printf '%s\n' "$command" | sed -n 's/.*--[a-z]*-dir[ =]"\{0,1\}\([^"]*\).*/\1/p'
}

# A unit whose program is about to go would be started anew every second, for ever.
remove_unit() {
    folder=$(folder_of "$1") || return 0
    systemctl disable --now "$1.service"
    rm -f "$units/$1.service"
    systemctl daemon-reload
    case $1 in
        master) echo "master.service is stopped and removed; the cluster's store and keys stay in ${folder:-/var/lib/keelson-master}" ;;
        *) echo "$1.service is stopped and removed" ;;
    esac
}

# Also after a join that was cut short, which made keys first.
is_node() {
    for folder in /etc/keelson "$(folder_of agent)"; do
        if [ -n "$folder" ] && { [ -e "$folder/node.yaml" ] || [ -e "$folder/pki" ]; }; then return 0; fi
    done
    return 1
}

for program; do
    [ -d "$here/$program" ] || { echo "install.sh: there is no $program, only agent and master" >&2; exit 2; }
    if [ "$action" = remove ] && [ -z "${DESTDIR:-}" ]; then
        if [ "$program" = agent ] && is_node; then
            echo "install.sh: this machine is a node, with its configuration in $folder: run 'agent leave --config-dir $folder' first" >&2
            exit 1
        fi
        remove_unit "$program"
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
