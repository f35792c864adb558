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

# A unit of "master init" whose program is about to go would be started anew every second, for ever.
remove_master_unit() {
    unit=$units/master.service
    command=$(sed -n 's/^ExecStart=//p' "$unit" 2>/dev/null) || return 0
    [ "${command%% *}" = "$prefix/bin/master" ] || return 0
    systemctl disable --now master.service
    rm -f "$unit"
    systemctl daemon-reload
    data=$(printf '%s\n' "$command" | sed -n 's/.*--data-dir[ =]\([^ ]*\).*/\1/p')
    echo "master.service is stopped and removed; the cluster's store and keys stay in ${data:-/var/lib/keelson-master}"
}

for program; do
    [ -d "$here/$program" ] || { echo "install.sh: there is no $program, only agent and master" >&2; exit 2; }
    if [ "$action" = remove ] && [ "$program" = agent ] && [ -z "${DESTDIR:-}" ] && [ -e /etc/keelson/node.yaml ]; then
        echo "install.sh: this machine is a node: run 'agent leave' first" >&2
        exit 1
    fi
    if [ "$action" = remove ] && [ "$program" = master ] && [ -z "${DESTDIR:-}" ]; then remove_master_unit; fi
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
