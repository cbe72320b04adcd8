//! Names beside those that devices have.

use std::net::IpAddr;

use control_proto::{AdminAnswer, AdminRequest, DeviceView, NameTargetView, NameView};
use controller::AdminClient;

use super::admin::{devices, done, find_device, short, unexpected};
use crate::cli::NameCommand;
use crate::exit::{Exit, Failure};
use crate::output::{json, line, table};

pub(crate) async fn name(
    client: &AdminClient,
    command: NameCommand,
    as_json: bool,
) -> Result<(), Failure> {
    match command {
        NameCommand::Add { name, target } => {
            let target = meant(&target, &devices(client).await?)?;
            let name = NameView { name, target };
            done(client.request(&AdminRequest::AddName(name.clone())).await?)?;
            if as_json {
                json(&name);
            } else {
                line(format_args!("{}: the devices know it within seconds.", name.name));
            }
        }
        NameCommand::List => {
            let AdminAnswer::Names { names } = client.request(&AdminRequest::Names).await? else {
                return Err(unexpected());
            };
            if as_json {
                json(&names);
            } else {
                let devices = devices(client).await?;
                let rows: Vec<_> = names.iter().map(|name| row(name, &devices)).collect();
                table(&["NAME", "KIND", "MEANS"], &rows);
            }
        }
        NameCommand::Remove { name } => {
            done(client.request(&AdminRequest::RemoveName { name }).await?)?;
            line("Removed: the devices forget it within seconds.");
        }
    }
    Ok(())
}

/// Addresses if all are; one that is none is a device, or else a name.
fn meant(target: &[String], devices: &[DeviceView]) -> Result<NameTargetView, Failure> {
    let addresses: Result<Vec<IpAddr>, _> = target.iter().map(|text| text.parse()).collect();
    match (addresses, target) {
        (Ok(addresses), _) => Ok(NameTargetView::Addresses { addresses }),
        (Err(_), [one]) => Ok(match find_device(devices, one) {
            Ok(device) => NameTargetView::Device { device: device.id },
            Err(_) => NameTargetView::Alias { name: one.clone() },
        }),
        (Err(_), _) => Err(Failure::new(
            Exit::Usage,
            "a name means one device, one other name, or addresses only",
        )),
    }
}

fn row(name: &NameView, devices: &[DeviceView]) -> Vec<String> {
    let (kind, means) = match &name.target {
        NameTargetView::Device { device } => {
            let known = devices.iter().find(|known| known.id == *device);
            let id = || short(&device.to_string());
            ("device", known.map_or_else(id, |known| known.name.to_string()))
        }
        NameTargetView::Addresses { addresses } => {
            let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
            ("addresses", addresses.join(", "))
        }
        NameTargetView::Alias { name } => ("name", name.clone()),
    };
    vec![name.name.clone(), kind.to_owned(), means]
}
